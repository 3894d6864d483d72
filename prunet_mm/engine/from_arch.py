"""Settings that follow from a config's network, filled in when a tool of ours reads the config.

A config for any network lists them: ``from_arch = {'model.neck.channels': 'tail.channels', ...}``,
setting by quantity. Its own values are those of the network that it names by default, so that it
is complete for every other tool, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunet_mm.errors import ConfigError, SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mmengine.config import Config

    from prunet_mm.spec import NetworkSpec

KEY, ARCH = 'from_arch', 'model.backbone.arch'
USUAL_CROP = 0.875  # of the shorter edge, where the network does not say


def follow_arch(cfg: Config, options: Mapping[str, Any], name: str) -> None:
    """Fills in what ``from_arch`` lists, and removes that list.

    Args:
        cfg: The config; changed in place.
        options: Settings that will replace those of the config, by dotted name; one of them may
            be the network.
        name: What errors call the config.

    Raises:
        SpecError: There is no such network.
        ConfigError: The list has a quantity that there is not, or a setting that the config lacks.
    """
    if KEY not in cfg:
        return
    from prunet_mm.models.prunet import load_arch

    listed = cfg.pop(KEY)
    arch = options.get(ARCH, cfg.model.backbone.arch)
    spec = load_arch(arch)
    if spec.tail is None:
        raise SpecError(f'{ARCH}: {spec.name} has no tail, while {name} is for a whole classifier')
    known = quantities(spec)
    for setting, quantity in listed.items():
        if quantity not in known:
            raise ConfigError(
                f'{name}: {KEY}: {setting}: found {quantity!r}, expected {", ".join(known)}'
            )
        if known[quantity] is None:
            continue
        try:
            _replace(cfg, setting, known[quantity])
        except (LookupError, TypeError, ValueError) as error:
            raise ConfigError(f'{name}: {KEY}: {setting}: the config has no such place') from error


def quantities(spec: NetworkSpec) -> dict[str, Any]:
    """What settings may follow; None for what the network does not say.

    ``resize`` is the whole step of a pipeline that comes before the crop at the centre, ``to_tail``
    what the backbone gives to the tail, and ``to_linear`` what the tail gives to the linear layer.
    """
    images, channels = spec.preprocessing, spec.layers[-1].out_channels
    edge = images.edge(spec.resolution) if images else int(spec.resolution / USUAL_CROP)
    interpolation = images.interpolation if images else 'bicubic'
    how = dict(backend='pillow', interpolation=interpolation)
    if images and images.squash:
        resize = dict(type='Resize', scale=(edge, edge), **how)
    else:
        resize = dict(type='ResizeEdge', scale=edge, edge='short', **how)
    return dict(
        resolution=spec.resolution,
        norm_eps=spec.norm_eps,
        mean=list(images.mean) if images else None,
        std=list(images.std) if images else None,
        interpolation=interpolation,
        resize=resize,
        to_tail=channels,
        to_linear=spec.tail.out_channels(channels),
        **{f'tail.{field}': value for field, value in spec.tail},
    )


def _replace(cfg: Config, setting: str, value: Any) -> None:
    """Sets what a dotted name leads to; numbers lead into lists."""
    place, keys = cfg, setting.split('.')
    for index, key in enumerate(keys, 1):
        key = int(key) if isinstance(place, list) else key
        if index == len(keys):
            place[key]  # it has to be there
            place[key] = value
        place = place[key]
