# The published recipe
_base_ = ['./prunet-p0_no-teacher_8xb256_in1k.py']

model = dict(
    type='DistillingClassifier',
    # EfficientNet-B2; which of its weights NVIDIA took is not known to us. These expect images with
    # the mean and standard deviation of ours, which others, such as ap_in1k, do not.
    teacher=dict(type='TimmClassifier', model_name='tf_efficientnet_b2.aa_in1k', pretrained=True),
    teacher_size=260,
)
