from backendai.testing.scheduler_v10 import SchedulerConformance


class TestFifo(SchedulerConformance):
    plugin = "scheduler_v10.fifo"


class TestFifoThatLetsOvertake(SchedulerConformance):
    plugin = "scheduler_v10.fifo"
    options = {"overtake": True}  # noqa: RUF012 - as an author writes it
