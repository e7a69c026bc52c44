"""One file through qcloud-cos-py3, timed without its start. Prints {"s": seconds}.

Its host is fixed, so that the store is reached as if it were a proxy.
"""

from __future__ import annotations

import json
import os
import sys
import time

given = json.loads(sys.argv[1])
sys.path.insert(0, given["sdk"])
os.environ["http_proxy"] = given["store"]
os.environ.pop("no_proxy", None)

from qcloud_cos_py3 import CosBucket  # noqa: E402

bucket = CosBucket(given["appid"], given["id"], given["key"], given["bucket"], "sh")
began = time.perf_counter()
answer = bucket.upload_slice_file(given["file"], given["slice_bytes"], given["path"])
took_s = time.perf_counter() - began
sys.stdout.write(json.dumps({"s": took_s, "answer": str(answer)[:200]}) + "\n")
