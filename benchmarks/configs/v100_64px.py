# The V100's search space on images of 64 px, small enough to be measured on a CPU: for
# tools/build_latency_table.py, to see how well a table predicts networks of that space
_base_ = ['../../configs/search/prunet_v100.py']

space = dict(resolution=64)

latency = dict(table='work_dirs/tables/v100_64px_cpu.json', device='cpu', batch=1, threads=1)
