"""Whether this host is fit for deployments: one file per subject, put together by rounds."""
