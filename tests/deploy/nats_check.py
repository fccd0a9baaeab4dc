"""Starts nats-server with deploy/nats.conf and checks who may do what. Port and folder come from the command line."""

import asyncio
import sys

import nats
from nats.js.api import ConsumerConfig, StreamConfig
from nats.js.errors import NotFoundError

port = sys.argv[1]


async def connect(user: str, prefix: str) -> nats.NATS:
    return await nats.connect(
        f"nats://{user}:{user}-password@127.0.0.1:{port}", inbox_prefix=prefix.encode(), allow_reconnect=False
    )


async def refused(what: str, asked) -> None:
    try:
        await asked
    except (nats.errors.TimeoutError, nats.errors.NoRespondersError):
        return
    sys.exit(f"the subscriber may {what}")


async def main() -> None:
    publisher = await connect("publisher", "_INBOX")
    writer = publisher.jetstream(timeout=2)
    await writer._api_request("$JS.API.INFO", b"", timeout=2)
    try:
        await writer.stream_info("ROLLCALL")
    except NotFoundError:
        pass
    await writer.add_stream(StreamConfig(name="ROLLCALL", subjects=["rollcall.events.>", "rollcall.facts.>"]))
    await writer.publish("rollcall.events.acme.user.UserCreated.1", b"1")
    await writer.get_last_msg("ROLLCALL", "rollcall.events.*.*.*.1")

    subscriber = await connect("subscriber", "_INBOX_subscriber")
    reader = subscriber.jetstream(timeout=1)
    for name in ("durable", "other"):
        config = ConsumerConfig(name=name)
        consumer = await reader.pull_subscribe(
            "rollcall.events.acme.user.>", durable=name, stream="ROLLCALL", config=config
        )
        [message] = await consumer.fetch(1, timeout=2)
        await message.ack_sync()
    await reader.consumer_info("ROLLCALL", "durable")
    await refused("publish an event", reader.publish("rollcall.events.acme.user.UserCreated.1", b"2"))
    await refused("purge the stream", reader.purge_stream("ROLLCALL"))
    await refused("delete the stream", reader.delete_stream("ROLLCALL"))
    await refused("make a stream", reader.add_stream(StreamConfig(name="MINE", subjects=["mine"])))
    await refused("delete a consumer", reader.delete_consumer("ROLLCALL", "other"))
    assert (await writer.stream_info("ROLLCALL")).state.messages == 1
    try:
        await nats.connect(f"nats://127.0.0.1:{port}", allow_reconnect=False, connect_timeout=2)
    except nats.errors.Error:
        return
    sys.exit("nobody may connect")


asyncio.run(main())
