from backendai.testing.scheduler_v10 import SchedulerConformance


class TestBackfill(SchedulerConformance):
    plugin = "scheduler_v10.backfill"


class TestBackfillForSeveralHeads(SchedulerConformance):
    plugin = "scheduler_v10.backfill"
    options = {"depth": 3, "limit": 2, "patience_s": 10.0}  # noqa: RUF012 - as an author writes it


class TestDrf(SchedulerConformance):
    plugin = "scheduler_v10.drf"


class TestDrfWithoutBands(SchedulerConformance):
    plugin = "scheduler_v10.drf"
    options = {"bands": False, "depth": 0}  # noqa: RUF012 - as an author writes it


class TestFairshare(SchedulerConformance):
    plugin = "scheduler_v10.fairshare"


class TestFairshareWithoutBands(SchedulerConformance):
    plugin = "scheduler_v10.fairshare"
    options = {"bands": False, "ahead_s": 60.0}  # noqa: RUF012 - as an author writes it


class TestFifo(SchedulerConformance):
    plugin = "scheduler_v10.fifo"


class TestFifoThatLetsOvertake(SchedulerConformance):
    plugin = "scheduler_v10.fifo"
    options = {"overtake": True}  # noqa: RUF012 - as an author writes it


class TestLifo(SchedulerConformance):
    plugin = "scheduler_v10.lifo"
