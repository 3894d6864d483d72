_base_ = ['./prunet-p0_no-teacher_8xb256_in1k.py']

model = dict(backbone=dict(arch='prunet_p1'))
