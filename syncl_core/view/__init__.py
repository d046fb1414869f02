"""Pictures and videos of what the tracker saw: boxes in the cameras, a bird's-eye view, one page per processed set."""
