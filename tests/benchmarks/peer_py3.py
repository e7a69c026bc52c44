"""One file through qcloud-cos-py3, timed without its start.

Its host is fixed, so that the store is reached as if it were a proxy.
"""

from __future__ import annotations

import json
import os
import sys

from timed import timed

given = json.load(sys.stdin)
sys.path.insert(0, given["sdk"])
os.environ["http_proxy"] = given["store"]
os.environ.pop("no_proxy", None)

from qcloud_cos_py3 import CosBucket  # noqa: E402

bucket = CosBucket(given["appid"], given["id"], given["key"], given["bucket"], "sh")
with timed():
    answer = bucket.upload_slice_file(given["file"], given["slice_bytes"], given["stem"] + "/py3")
if "code" in answer and answer["code"] != 0:
    sys.exit(str(answer))
