"""The same generator served by other frameworks, as a competent user of each would do it, to measure beside ours.

Each `*_server.py` is one server; `common` is what they share: loading, latents, PNGs. They run in environments of their
own, `.venv-peers/NAME`, made by `launch` from `requirements/NAME.txt`, which have nothing of this project in them. So
that what is compared is the serving, all of them run the same TorchScript archive of the bundle.

All answer `seed` and `n`: one picture as `image/png`, or n in 2..16 for seeds seed, seed + 1, ... as n PNG files one
after the other, the cheapest form there is for them.
"""
