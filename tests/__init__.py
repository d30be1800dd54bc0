"""Tests of plumbline; the folders mirror the packages."""
