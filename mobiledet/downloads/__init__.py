"""Fetching files from the network and members from archives: whole, checked, resumable, or one clear line why not."""

from mobiledet.downloads.archives import extract_member
from mobiledet.downloads.fetching import fetch
from mobiledet.downloads.remote import Remote, cache_folder
from mobiledet.errors import DownloadError

__all__ = ["DownloadError", "Remote", "cache_folder", "extract_member", "fetch"]
