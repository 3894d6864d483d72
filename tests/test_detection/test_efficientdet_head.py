import pytest
import torch
from effdet import get_efficientdet_config
from effdet.anchors import Anchors
from effdet.efficientdet import HeadNet
from effdet.loss import huber_loss, new_focal_loss
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import nn
from torch.nn import functional as F

from prunet_mm.detection.efficientdet_head import ANCHORS, BOX_LOSS, CLASS_LOSS

TRAIN = ConfigDict(
    assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0),
    allowed_border=-1,
    pos_weight=-1,
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def build(num_classes=90, channels=64, stacked_convs=3, **settings):
    return MODELS.build(
        dict(
            type='mmdet.EfficientDetHead',
            num_classes=num_classes,
            in_channels=channels,
            stacked_convs=stacked_convs,
            **settings,
        )
    )


def reference(num_outputs, variant='efficientdet_d0'):
    net = HeadNet(get_efficientdet_config(variant), num_outputs)
    for tensor in [*net.parameters(), *net.buffers()]:
        if tensor.is_floating_point():
            tensor.data.uniform_(0.2, 1.0)
    for conv in net.modules():
        if isinstance(conv, nn.Conv2d):
            conv.weight.data.sub_(0.6).div_(conv.weight[0].numel() ** 0.5)
    return net.eval()


def copy_from_reference(theirs, ours):
    with torch.no_grad():
        for value in ours.state_dict().values():
            value.fill_(torch.nan if value.is_floating_point() else 0)
    their_convs, our_convs = [*theirs.conv_rep, theirs.predict], [*ours.convs, ours.predict]
    for conv, own in zip(their_convs, our_convs, strict=True):
        own.depthwise.load_state_dict(conv.conv_dw.state_dict())
        own.pointwise.load_state_dict(conv.conv_pw.state_dict())
    for repeat, norms in enumerate(theirs.bn_rep):
        for norm, own in zip(norms, ours.norms, strict=True):
            own[repeat].load_state_dict(norm.bn.state_dict())
    assert not any(value.isnan().any() for value in ours.state_dict().values())
    return ours.eval()


def maps(channels=64, size=64, batch=2):
    return [torch.randn(batch, channels, size // 2**level, size // 2**level) for level in range(5)]


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_d0_has_as_many_parameters_as_the_reference():
    head = build()
    assert parameters(head.class_net) == parameters(reference(90)) == 69_162
    assert parameters(head.box_net) == parameters(reference(4)) == 18_852


@pytest.mark.parametrize(
    ('variant', 'width', 'repeats'),
    [('efficientdet_d1', 88, 3), ('efficientdet_d2', 112, 3), ('efficientdet_d3', 160, 4)],
)
def test_scaled_heads_have_as_many_parameters_as_the_reference(variant, width, repeats):
    head = build(channels=width, stacked_convs=repeats)
    assert parameters(head.class_net) == parameters(reference(90, variant))
    assert parameters(head.box_net) == parameters(reference(4, variant))


def test_outputs_are_the_reference_s():
    class_net, box_net = reference(90), reference(4)
    head = build()
    copy_from_reference(class_net, head.class_net)
    copy_from_reference(box_net, head.box_net)
    x = maps()
    with torch.no_grad():
        for found, expected in zip(head(x), (class_net(x), box_net(x)), strict=True):
            assert expected[0].abs().max() > 0.1
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_norms_are_of_one_level_each():
    head = build(num_classes=3, channels=8).train()
    x = maps(channels=8)
    x[2] = x[2] * 100
    head(x)
    variances = [norms[0].running_var.mean().item() for norms in head.class_net.norms]
    others = variances[:2] + variances[3:]
    assert variances[2] > 5 * max(others)
    norms = [norm for norm in head.modules() if isinstance(norm, nn.BatchNorm2d)]
    assert len(norms) == 2 * 3 * 5
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


def test_anchors_are_those_of_the_reference():
    generator = TASK_UTILS.build(ANCHORS)
    assert generator.num_base_priors == [9] * 5
    sizes = [(512 // stride[1], 512 // stride[0]) for stride in generator.strides]
    found = torch.cat(generator.grid_priors(sizes, device='cpu'))
    # there, ratios are width to height, and boxes are (y, x, y, x)
    expected = Anchors(3, 7, 3, [1.0, 2.0, 0.5], 4.0, (512, 512)).boxes[:, [1, 0, 3, 2]]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)


def test_losses_are_those_of_the_reference():
    config = get_efficientdet_config('efficientdet_d0')
    positives, classes = 7, 5
    deltas, targets = torch.randn(positives, 4), torch.randn(positives, 4) * 0.1
    found = MODELS.build(BOX_LOSS)(deltas, targets, avg_factor=positives)
    huber = huber_loss(deltas, targets, delta=config.delta, size_average=False) / (positives * 4)
    torch.testing.assert_close(found, config.box_loss_weight * huber)

    logits, labels = torch.randn(20, classes), torch.randint(classes + 1, (20,))
    found = MODELS.build(CLASS_LOSS)(logits, labels, avg_factor=positives)
    one_hot = F.one_hot(labels, classes + 1)[:, :classes]
    focal = new_focal_loss(logits, one_hot, config.alpha, config.gamma, positives, 0.0)
    torch.testing.assert_close(found, focal.sum())


def instances(*boxes):
    return InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.arange(len(boxes)),
    )


def losses(head, x, *images):
    metas = [dict(img_shape=(512, 512), pad_shape=(512, 512)) for _ in images]
    return head.loss_by_feat(*head(x), list(images), metas)


def test_a_batch_without_annotations_has_a_finite_loss():
    head = build(num_classes=3, channels=8, train_cfg=TRAIN)
    head.init_weights()
    found = losses(head, maps(channels=8), instances(), instances())
    assert sum(found['loss_bbox']).item() == 0
    total = sum(found['loss_cls']) + sum(found['loss_bbox'])
    # all anchors are background, which is what the head says of them at first
    assert 0 < total.item() < 1000
    total.backward()
    assert all(p.grad.isfinite().all() for p in head.parameters() if p.grad is not None)


def test_at_first_almost_nothing_is_an_object():
    head = build(num_classes=3, channels=8)
    head.init_weights()
    scores, deltas = head.eval()(maps(channels=8))
    assert head.class_net.predict.pointwise.bias.sigmoid().tolist() == pytest.approx([0.01] * 27)
    assert not head.box_net.predict.pointwise.bias.any()
    assert torch.cat([x.flatten() for x in scores]).sigmoid().median() < 0.05
    assert torch.cat([x.flatten() for x in deltas]).mean().abs() < 0.5


def test_learns_boxes_and_gives_them_back():
    settings = dict(
        train_cfg=TRAIN,
        test_cfg=ConfigDict(
            nms_pre=1000,
            min_bbox_size=0,
            score_thr=0.3,
            nms=dict(type='nms', iou_threshold=0.5),
            max_per_img=100,
        ),
    )
    head = build(num_classes=2, channels=16, stacked_convs=1, **settings)
    head.init_weights()
    x = maps(channels=16, batch=1)
    truth = instances([30, 40, 90, 100], [200, 220, 420, 330])
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        found = losses(head, x, truth)
        total = sum(found['loss_cls']) + sum(found['loss_bbox'])
        total.backward()
        optimizer.step()
    assert total.item() < 0.1
    with torch.no_grad():
        metas = [dict(img_shape=(512, 512), pad_shape=(512, 512), scale_factor=(1, 1))]
        (result,) = head.predict_by_feat(*head(x), batch_img_metas=metas)
    order = result.labels.argsort()
    assert result.labels[order].tolist() == [0, 1]
    torch.testing.assert_close(result.bboxes[order], truth.bboxes, rtol=0, atol=4)
