"""Build prunet_mm; the requirements and extras are the files in ``requirements/``."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def requirements(*names: str) -> list[str]:
    """Return the lines of ``requirements/NAME.txt`` for each name, comments left out."""
    lines = [
        line.split('#')[0].strip()
        for name in names
        for line in (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    ]
    return [line for line in lines if line]


setup(
    name='prunet_mm',
    version=re.search(r"'(.+)'", (ROOT / 'prunet_mm/version.py').read_text()).group(1),
    description='Differentiable, latency-aware architecture search with tiered pruning',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    keywords='neural architecture search, pruning, latency, OpenMMLab, PRUNET, GPUNet',
    python_requires='>=3.10,<3.13',
    packages=find_packages(include=['prunet_mm', 'prunet_mm.*']),
    py_modules=['prunet'],
    entry_points={'console_scripts': ['prunet = prunet:main']},
    package_data={
        'prunet_mm': [
            *('spec/zoo/*.json', 'estimates/*.json', 'latency/tables/*.json'),
            'report/templates/*',
            # Links to configs/, tools/ and model-index.yml; a wheel gets what they lead to.
            *(f'.mim/**/*.{suffix}' for suffix in ('py', 'json', 'yml', 'md', 'sh')),
        ]
    },
    install_requires=requirements('base'),
    # No OpenMMLab package is required outright: the forks named here share import names with the
    # originals, and whoever has the originals keeps them.
    extras_require={
        'mm': requirements('mm'),
        'det': requirements('mm', 'det'),
        'distill': requirements('mm', 'distill'),
        'pretrained': requirements('mm', 'pretrained'),
        'export': requirements('mm', 'export'),
        'backends': requirements('mm', 'export', 'backends'),
        'demo': requirements('mm', 'demo'),
        'docs': requirements('docs'),
        'test': requirements('mm', 'det', 'distill', 'pretrained', 'export', 'demo', 'test'),
    },
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Environment :: Console',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
)
