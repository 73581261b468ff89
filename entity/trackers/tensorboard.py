"""TensorBoard: event files in `trackers/tensorboard` of the run directory.

`tensorboard --logdir runs` shows all runs below each other. Written with tensorboard's own event
writer, so that neither torch nor TensorFlow is loaded for it.
"""

import json
import time
from collections.abc import Mapping
from typing import Any

from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from entity.trackers.contract import Session

# Protocol buffers make their classes when they are imported, which no type checker sees.
Event: Any = vars(event_pb2)["Event"]
Summary: Any = vars(summary_pb2)["Summary"]
SummaryMetadata: Any = vars(summary_pb2)["SummaryMetadata"]
TensorProto: Any = vars(tensor_pb2)["TensorProto"]
TensorShapeProto: Any = vars(tensor_shape_pb2)["TensorShapeProto"]


class TensorBoard:
    """Scalars by round, and the configuration and the summary as text.

    Parameters
    ----------
    session
        The run. After a resume a further event file of the same run is begun.
    """

    def __init__(self, session: Session) -> None:
        self.writer = EventFileWriter(str(session.own / "tensorboard"))
        self.round = session.logged
        if not session.logged:
            self._write(_text("config", dict(session.config)))

    def log(self, number: int, values: Mapping[str, float]) -> None:
        """Write one scalar a value."""
        self.round = number
        self._write(*(Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()))

    def finish(self, state: str, summary: Mapping[str, float]) -> None:
        """Write the summary as text and close the file."""
        self._write(_text("summary", {"state": state, **summary}))
        self.writer.close()

    def _write(self, *values: Any) -> None:
        summary = Summary(value=values)
        self.writer.add_event(Event(wall_time=time.time(), step=self.round, summary=summary))
        self.writer.flush()


def _text(tag: str, data: Mapping[str, object]) -> Any:
    """Return a value of TensorBoard's text plugin, whose Markdown has code indented by four."""
    lines = json.dumps(data, indent=2).splitlines()
    text = "\n".join(f"    {line}" for line in lines)
    return Summary.Value(
        tag=tag,
        metadata=SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text")),
        tensor=TensorProto(
            dtype=vars(types_pb2)["DT_STRING"],
            string_val=[text.encode()],
            tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
        ),
    )
