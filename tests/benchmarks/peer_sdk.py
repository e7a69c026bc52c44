"""Run by Python 2.7: one file through the vendor's SDK, timed without its start. Prints {"s": seconds}."""

import json
import sys
import time

given = json.loads(sys.argv[1])
sys.path.insert(0, given["sdk"])

from qcloud_cos import CosClient, CosConfig, UploadSliceFileRequest  # noqa: E402

host = given["store"].split("//")[1]
client = CosClient(int(given["appid"]), given["id"], given["key"])
client.set_config(CosConfig(region=None, hostname=host, download_hostname=host))
request = UploadSliceFileRequest(
    given["bucket"],
    "/" + given["path"],
    given["file"],
    slice_size=given["slice_bytes"],
    insert_only=0,
    max_con=given["threads"],
)
began = time.time()
answer = client.upload_slice_file(request)
took_s = time.time() - began
if answer["code"] != 0:
    sys.exit(str(answer))
sys.stdout.write(json.dumps({"s": took_s}) + "\n")
