"""Brokers of Celery, one file each: what lies in their queues, and a connection that commands to nodes can use."""

from __future__ import annotations

from agent.brokers.common import Address, Broker, BrokerTrouble


def open_broker(address: Address) -> Broker:
    """Connects to a broker; raises BrokerTrouble. Its package is loaded here and not before: it costs 10 MB."""
    if address.is_redis:
        from agent.brokers.redis import RedisBroker

        return RedisBroker(address)
    if address.is_amqp:
        from agent.brokers.rabbitmq import RabbitBroker

        return RabbitBroker(address)
    raise BrokerTrouble(f"brokers of the kind {address.scheme} are not understood")
