//! Displays: DRM/KMS, fbdev, X11 window, PNG files, behind one trait.
