//! Frame sources: V4L2 camera, picture folder, Y4M and MJPEG files, the built-in demo.
