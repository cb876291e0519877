"""Tests of the whole product say by markers what the machine has to allow."""

from support.machine import pytest_runtest_setup as pytest_runtest_setup
