"""A roster on its way to another machine, which has the data set itself."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from entity.config.paths import user_path
from entity.config.schema import ConfigError
from entity.dataset import Images, Selection, load, source_of
from entity.dataset.cache_folder import Mapped
from entity.setup.roster import Roster


@dataclass(frozen=True)
class PackedRoster:
    """A roster, without its images where they come from a cache: a node maps its own.

    Images that lie in memory, such as those that a package brings along, travel inside.
    """

    roster: Roster
    folder: Path | None
    """The data folder where it was packed; None if the images are inside."""
    sha256: str
    """Hash of the pixels."""

    @classmethod
    def of(cls, roster: Roster) -> "PackedRoster":
        """Pack a roster."""
        images = roster.images
        if not isinstance(images, Selection) or not isinstance(images.images, Mapped):
            return cls(roster, None, "")
        folder = user_path(roster.config.settings.datasets_path).resolve()
        bare = Images(images.images.x[:0].clone(), images.images.y[:0].clone())
        return cls(replace(roster, images=bare), folder, images.images.known_sha256())

    def unpack(self) -> Roster:
        """Return the roster, with the images of this machine's data folder.

        That is the folder where it was packed, if it exists here, too, else the one that DROP_DATA
        names.

        Raises
        ------
        ConfigError
            If there are no images, or not the same ones.
        """
        if self.folder is None:
            return self.roster
        folder = self.folder
        if not folder.is_dir():
            folder = user_path(os.environ.get("DROP_DATA") or folder)
        config = self.roster.config
        config = replace(config, settings=replace(config.settings, datasets_path=str(folder)))
        source = source_of(config)
        train = load(source, folder, self.roster.seeds, config.server.held_out).train
        if train.images.known_sha256() != self.sha256:
            raise ConfigError(f"datasets_path = {folder}: holds another {source.name}.")
        return replace(self.roster, config=config, images=train)
