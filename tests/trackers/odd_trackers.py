"""Trackers that note what they are told, raise, hang and die; processes import this module."""

import json
import os
import signal
import time


class Notes:
    """Writes a line for each call into the run directory."""

    def __init__(self, session):
        self.file = (session.own / "notes").open("a", buffering=1)
        self._say("start", session.id, session.name, session.config["model"])

    def log(self, number, values):
        self._say("log", number, values["mta"], values["refused"])

    def finish(self, state, summary):
        self._say("finish", state, summary["rounds"])

    def _say(self, *words):
        self.file.write(json.dumps(words) + "\n")


class RaisesAtStart(Notes):
    def __init__(self, session):
        raise ValueError("no [bold]such[/] server\nat all")


class RaisesInARound(Notes):
    def log(self, number, values):
        raise RuntimeError("disk is full")


class HangsInARound(Notes):
    """Takes the first round and never comes back, deaf to kind words."""

    def log(self, number, values):
        super().log(number, values)
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
        while True:
            time.sleep(1)


class Dies(Notes):
    def log(self, number, values):
        os.kill(os.getpid(), signal.SIGKILL)
