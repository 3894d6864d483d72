"""What an exported file says of itself, enough to use it without the config it is from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prunet_mm.errors import ConfigError
from prunet_mm.inference.preparing import Preparation
from prunet_mm.inference.reading import Findings, Selection, best_classes, detections

OUTPUTS = {
    'logits': ('logits',),
    'raw': ('scores', 'boxes'),
    'detections': ('count', 'boxes', 'scores', 'labels'),
}


@dataclass(frozen=True)
class Usage:
    """How to make use of an exported classifier or detector.

    Attributes:
        output: A key of `OUTPUTS`: a classifier's logits, or one of the two forms of a detector.
        classes: Their names, by number.
        preparation: From an image to the input.
        selection: Which boxes a detector's file takes, or with ``raw`` which ones to take.
    """

    output: str
    classes: tuple[str, ...]
    preparation: Preparation
    selection: Selection | None = None

    def read(self, outputs: Sequence[np.ndarray]) -> list[Findings]:
        """What was found in each image, in pixels of the input; outputs as in `OUTPUTS`."""
        if self.output == 'logits':
            return [best_classes(logits) for logits in outputs[0]]
        if self.output == 'raw':
            return [self.selection(*image) for image in zip(*outputs, strict=True)]
        return detections(outputs)

    def to_metadata(self) -> dict[str, str]:
        """As what ONNX keeps: strings, of JSON but for ``output``."""
        data = dict(classes=self.classes, preprocessing=self.preparation.to_dict())
        if self.selection is not None:
            data['postprocessing'] = self.selection.to_dict()
        return dict({key: json.dumps(value) for key, value in data.items()}, output=self.output)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], path: str) -> Usage:
        """Reads what `to_metadata` made.

        Args:
            metadata: That of the file.
            path: What errors call it.

        Raises:
            ConfigError: It is not there, or damaged.
        """
        if metadata.get('part') == 'backbone':
            raise ConfigError(
                f'{path}: is a backbone alone, whose maps say nothing of an image by themselves: '
                'export the whole model, with tools/export.py --part model'
            )
        if 'preprocessing' not in metadata or metadata.get('output') not in OUTPUTS:
            raise ConfigError(
                f'{path}: does not say how images are prepared for it and what its outputs are, '
                'as files of tools/export.py do: is it one, and not of an older version?'
            )
        try:
            selection = metadata.get('postprocessing')
            return cls(
                metadata['output'],
                tuple(map(str, json.loads(metadata['classes']))),
                Preparation.from_dict(json.loads(metadata['preprocessing'])),
                selection and Selection.from_dict(json.loads(selection)),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f'{path}: its metadata is damaged ({type(error).__name__}: {error}): '
                'export it again'
            ) from error
