from chassis.imports import load_structlog

load_structlog()
