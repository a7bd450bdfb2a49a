"""Asks for the health of a server over a Unix socket, as any Python program would: without channel options."""

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING

for target in sys.argv[1:]:
    with grpc.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        # Several calls: from the second on the authority is an entry of the dynamic table.
        for _ in range(3):
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
            assert answer.status == SERVING, answer
        stream = stub.Watch(health_pb2.HealthCheckRequest(), timeout=10)
        assert next(stream).status == SERVING
        stream.cancel()
        try:
            stub.Check(health_pb2.HealthCheckRequest(service="none"), timeout=10)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND, error
        else:
            raise AssertionError("an unknown service was found")
    print("ok", target)
