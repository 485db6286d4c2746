"""A Delta Chat core with a device token: its C API, spoken to as deltachat-rpc-server is.

Usage: core_capi.py FOLDER TOKEN

One JSON-RPC message per line, requests on standard input, responses on standard output. Ends when standard input does.
The current deltachat-rpc-server has no call to set a device token; the C API of the `deltachat` wheel has one.
"""

import ctypes
import os
import sys
import threading
from importlib import util


def load():
    package = util.find_spec("deltachat").submodule_search_locations[0]
    capi = ctypes.CDLL(os.path.join(package, "capi.abi3.so"))
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    for name, result, arguments in [
        ("dc_accounts_new", pointer, [text, ctypes.c_int]),
        ("dc_accounts_set_push_device_token", None, [pointer, text]),
        ("dc_jsonrpc_init", pointer, [pointer]),
        ("dc_jsonrpc_request", None, [pointer, text]),
        # A pointer, not a string: ctypes would lose what dc_str_unref has to free.
        ("dc_jsonrpc_next_response", pointer, [pointer]),
        ("dc_str_unref", None, [pointer]),
    ]:
        function = getattr(capi, name)
        function.restype, function.argtypes = result, arguments
    return capi


def print_responses(capi, rpc):
    while response := capi.dc_jsonrpc_next_response(rpc):
        line = ctypes.string_at(response)
        capi.dc_str_unref(response)
        os.write(sys.stdout.fileno(), line + b"\n")


def main():
    folder, token = sys.argv[1:]
    capi = load()
    accounts = capi.dc_accounts_new(folder.encode(), 1)
    if not accounts:
        sys.exit(f"the core cannot make its accounts in {folder}")
    capi.dc_accounts_set_push_device_token(accounts, token.encode())
    rpc = capi.dc_jsonrpc_init(accounts)
    threading.Thread(target=print_responses, args=(capi, rpc), daemon=True).start()
    for request in sys.stdin.buffer:
        capi.dc_jsonrpc_request(rpc, request.strip())
    # The app is swiped away, not closed: nothing is unwound, connections end with the process.
    os._exit(0)


main()
