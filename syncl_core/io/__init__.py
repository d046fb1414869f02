"""What comes in and goes out: rosbag2 and its messages, tracking results, YAML. Built and read without ROS."""
