"""Run by Python 2.7: one file through the vendor's SDK, timed without its start. Prints what `timed` prints."""

import json
import os
import sys
import time

given = json.load(sys.stdin)
sys.path.insert(0, given["sdk"])

from qcloud_cos import CosClient, CosConfig, UploadSliceFileRequest  # noqa: E402

host = given["store"].split("//")[1]
client = CosClient(int(given["appid"]), given["id"], given["key"])
client.set_config(CosConfig(region=None, hostname=host, download_hostname=host))
request = UploadSliceFileRequest(
    given["bucket"],
    "/" + given["stem"] + "/sdk",
    given["file"],
    slice_size=given["slice_bytes"],
    max_con=given["threads"],
)
began, used = time.time(), sum(os.times()[:4])
answer = client.upload_slice_file(request)
took_s, used_s = time.time() - began, sum(os.times()[:4]) - used
if answer["code"] != 0:
    sys.exit(str(answer))
sys.stdout.write(json.dumps({"s": took_s, "cpu_s": used_s}) + "\n")
