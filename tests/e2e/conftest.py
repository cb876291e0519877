"""Tests of the whole product name by markers what the machine must allow."""

from support.machine import pytest_runtest_setup as pytest_runtest_setup
