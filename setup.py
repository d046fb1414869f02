"""The ament_python package syncl_ros: the library `syncl_core` and the ROS 2 node `syncl_ros`.

`colcon build`, `pip install .` and `pip install -e .` all read this file. torch (2.7 or newer) is not in
install_requires: which build fits (CPU, CUDA 12, CUDA 13) is the user's choice, and package.xml cannot name it either.
"""

from glob import glob

from setuptools import find_packages, setup

NAME = "syncl_ros"

setup(
    name=NAME,
    version="0.1.0",
    description="Camera-only end-to-end 3D multi-object tracking on ROS 2",
    long_description="Six surround cameras in, persistent 3D tracks out. A plain PyTorch library and a ROS 2 node.",
    license="Apache-2.0",
    author="The SynCL-ROS authors",
    maintainer="The SynCL-ROS authors",
    maintainer_email="syncl-ros@users.noreply.github.com",
    python_requires=">=3.10",
    packages=find_packages(include=["syncl_core", "syncl_core.*", "syncl_ros", "syncl_ros.*"]),
    package_data={
        "syncl_core.io": ["interfaces/README.md", "interfaces/*/LICENSE", "interfaces/*/*/*.*"],
        "syncl_ros": ["resource/*"],
        "syncl_ros.bootstrap": ["*.txt"],
    },
    data_files=[
        # The ament index finds a package by this marker; the file's name is the package's name.
        ("share/ament_index/resource_index/packages", [f"{NAME}/resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", sorted(glob("launch/*.py"))),
        (f"share/{NAME}/config", sorted(glob("config/*.*"))),
        (f"share/{NAME}/config/weights", sorted(glob("config/weights/*.*"))),
        (f"share/{NAME}/config/vehicles", sorted(glob("config/vehicles/*.yaml"))),
    ],
    install_requires=[
        "numpy>=1.21",
        "opencv-python-headless>=4.5",
        "pillow>=10.1",
        "pyyaml>=5.4",
        "rosbags>=0.11.6",
        "safetensors>=0.4",
        "scipy>=1.8",
        "simplejpeg>=1.7",
        "tqdm>=4.57",
    ],
    extras_require={
        "data": ["nuscenes-devkit==1.2.0", "motmetrics==1.4.0", "pandas<3"],  # nuScenes and its official metrics
        "video": ["av>=12"],
        "test": ["pytest", "pytest-xdist", "hypothesis", "ruff"],
    },
    entry_points={
        "console_scripts": [
            "syncl = syncl_core.cli:main",
            "tracker = syncl_ros.node:main",
            "player = syncl_ros.player:main",
            "recorder = syncl_ros.recorder:main",
            "doctor = syncl_ros.doctor:main",
            "soak = syncl_ros.soak:main",
            "bench_node = syncl_ros.bench_node:main",
        ]
    },
    # `ros2 run` looks in lib/<package>. These options, which usually lie in setup.cfg, rule `setup.py install` and
    # `setup.py develop`, the commands colcon calls. pip ignores them and makes bin/syncl from the entry points.
    options={
        "develop": {"script_dir": f"$base/lib/{NAME}"},
        "install": {"install_scripts": f"$base/lib/{NAME}"},
    },
    zip_safe=False,
)
