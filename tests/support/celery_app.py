"""The Celery app of the test process, pointed to any broker."""

import uuid

import amqp
from celery import Celery

from django_idenfy_phone import tasks
from django_idenfy_phone.broker import BrokerPublisher
from support.brokers import wait_until


def publish():
    """Publish one message; return whether it was published."""
    return tasks.notify_worker(uuid.uuid4())


def publish_surely():
    """Publish one message, again where a busy machine makes a publish slow."""
    wait_until(publish)


def _do_nothing(argument):
    pass


def publisher_of_host(url, **settings):
    """The publisher of a host whose Celery app has these settings."""
    app = Celery("host", broker=url, set_as_current=False)
    app.conf.update(settings)
    return BrokerPublisher(app.task(_do_nothing, name="host.task"))


class CeleryApp:
    """Publishes to the broker of ``use`` until ``restore``."""

    def __init__(self):
        self.app = tasks.send_code.app
        names = (
            *("broker_url", "broker_read_url", "broker_write_url"),
            *("broker_transport_options", "broker_use_ssl", "result_backend"),
        )
        self._before = {name: self.app.conf[name] for name in names}

    def use(self, url):
        self.point_to(url)
        tasks.publisher.reset()

    def point_to(self, url):
        """As ``use``, but publishing stays paused if it was."""
        # Celery 5.4 does not notice a change of broker_url alone.
        urls = dict.fromkeys(["broker_url", "broker_read_url", "broker_write_url"], url)
        self.app.conf.update(urls)

    def restore(self):
        self.app.conf.update(self._before)
        tasks.publisher.reset()

    def read(self):
        """Take the oldest message from the broker."""
        with self.app.connection_for_read() as connection:
            queue = connection.SimpleQueue(self.app.conf.task_default_queue)
            message = queue.get(timeout=5)
            message.ack()
            queue.close()
        return message

    def read_ids(self):
        """Take all messages, and return the ids in them."""
        return [self.read().payload[0][0] for _ in range(self.count_waiting())]

    def count_waiting(self):
        """How many messages no worker took yet."""
        name = self.app.conf.task_default_queue
        with self.app.connection_for_read() as connection:
            try:
                return connection.SimpleQueue(name).qsize()
            except amqp.ChannelError:
                # There is no queue before the first message.
                return 0
