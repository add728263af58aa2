"""Files of published data sets, by name."""

import os

from minimind_edu.data.errors import file_error

SCHEME = "hf://"


def download(url: str) -> str:
    """The local path of `hf://owner/name/path/to/file`, a file of a Hugging Face data set.

    The file is fetched once, into the Hugging Face cache. `HF_ENDPOINT` names a mirror;
    `hf://owner/name@revision/file` asks for one version.

    Raises:
        DataError: the name is incomplete, or the file cannot be fetched.
    """
    # Imported here because nobody who works offline needs it.
    from huggingface_hub import hf_hub_download

    parts = url.removeprefix(SCHEME).removeprefix("datasets/").split("/", 2)
    if len(parts) < 3 or not all(parts):
        raise file_error(url, "expected hf://owner/name/file")
    owner, (name, _, revision), filename = parts[0], parts[1].partition("@"), parts[2]
    try:
        return hf_hub_download(
            f"{owner}/{name}",
            filename,
            repo_type="dataset",
            revision=revision or None,
            endpoint=os.environ.get("HF_ENDPOINT") or None,
        )
    except Exception as error:  # the library raises many kinds, and those of its HTTP client
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise file_error(url, f"cannot be downloaded ({type(error).__name__}: {reason})") from error
