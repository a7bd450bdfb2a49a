"""A stock grpcio client with no channel options: a unary call, an error, a stream, health and reflection.

Usage: client.py SOCKET DESCRIPTORS. It needs no generated code: messages come from the descriptor set.
"""

import sys

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

socket, descriptors = sys.argv[1:]
pool = descriptor_pool.DescriptorPool()
files = descriptor_pb2.FileDescriptorSet()
with open(descriptors, "rb") as file:
    files.ParseFromString(file.read())
for proto in files.file:
    pool.Add(proto)


def message(name):
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("conductor.v1." + name))


channel = grpc.insecure_channel("unix:" + socket)


def unary(method, response):
    return channel.unary_unary(
        "/conductor.v1." + method,
        request_serializer=lambda request: request.SerializeToString(),
        response_deserializer=message(response).FromString,
    )


info = unary("DaemonService/GetDaemonInfo", "GetDaemonInfoResponse")(message("GetDaemonInfoRequest")(), timeout=20)
assert info.socket == socket, info
print("unary ok")

try:
    unary("TaskService/GetTask", "GetTaskResponse")(message("GetTaskRequest")(task_id="task-20200101-000000-none"), timeout=20)
    raise AssertionError("the task should not be there")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.NOT_FOUND, error
    assert any(key == "grpc-status-details-bin" for key, _ in error.trailing_metadata()), error
print("error ok")

watch = channel.unary_stream(
    "/conductor.v1.WatchService/Watch",
    request_serializer=lambda request: request.SerializeToString(),
    response_deserializer=message("WatchResponse").FromString,
)(message("WatchRequest")(), timeout=20)
for response in watch:
    if response.bookmark.snapshot_end:
        break
watch.cancel()
print("stream ok")

raw = {"request_serializer": bytes, "response_deserializer": bytes}
health = channel.unary_unary("/grpc.health.v1.Health/Check", **raw)(b"", timeout=20)
# HealthCheckResponse{status: SERVING}
assert health == b"\x08\x01", health
print("health ok")

# ServerReflectionRequest{list_services: ""} is field 7.
for version in ("v1", "v1alpha"):
    call = channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo", **raw)
    answer = next(call(iter([b"\x3a\x00"]), timeout=20))
    assert b"conductor.v1.TaskService" in answer, answer
print("reflection ok")
