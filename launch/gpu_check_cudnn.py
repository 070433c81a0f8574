"""Prints the description that cuDNN gives of the first GPU, as JSON: what its graphs can be checked against where no such
GPU is. A process of its own for launch/gpu-check, because a library that fails inside takes its process along."""

import ctypes
import json
import sys

# cudnn_graph.h of cuDNN 9
DEVICEPROP_DESCRIPTOR = 38
DEVICEPROP_DEVICE_ID = 2700
DEVICEPROP_JSON = 2702
TYPE_INT32 = 23
TYPE_CHAR = 24


def main():
    try:
        cudnn = ctypes.CDLL("libcudnn.so.9")
    except OSError as error:
        print(f"no cuDNN: {error}", file=sys.stderr)
        return 3

    def call(name, *arguments):
        status = getattr(cudnn, name)(*arguments)
        if status != 0:
            raise RuntimeError(f"{name} returned {status}")

    try:
        descriptor = ctypes.c_void_p()
        device, size = ctypes.c_int32(0), ctypes.c_int64(0)
        call("cudnnBackendCreateDescriptor", DEVICEPROP_DESCRIPTOR, ctypes.byref(descriptor))
        call("cudnnBackendSetAttribute", descriptor, DEVICEPROP_DEVICE_ID, TYPE_INT32, ctypes.c_int64(1),
             ctypes.byref(device))
        call("cudnnBackendFinalize", descriptor)
        call("cudnnBackendGetAttribute", descriptor, DEVICEPROP_JSON, TYPE_CHAR, ctypes.c_int64(0), ctypes.byref(size),
             None)
        text = ctypes.create_string_buffer(size.value + 1)
        call("cudnnBackendGetAttribute", descriptor, DEVICEPROP_JSON, TYPE_CHAR, size, ctypes.byref(size), text)
        print(json.dumps(json.loads(text.value.decode().strip("\0")), indent=2))
    except (RuntimeError, ValueError, AttributeError) as error:
        print(f"cuDNN gives no description: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
