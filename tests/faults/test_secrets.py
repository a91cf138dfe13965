"""Credentials in a storage's URL are refused before anything prints or stores them."""

import json
from pathlib import Path

import pytest
from paths import ROOT

from ctm_rl.agents.experiments.serialise import to_json
from ctm_rl.agents.experiments.storage_url import check_storage, mask_secrets
from ctm_rl.agents.run_directory.directory import read_config
from ctm_rl.agents.run_directory.storage import Storage
from ctm_rl.cli.main import main
from ctm_rl.configs import load
from ctm_rl.errors import UserError

SECRET = "wJalrXUtnFEMI"
WITH_SECRETS = (
    f"s3://AKIA:{SECRET}@bucket/runs",
    f"s3://AKIA:{SECRET}/K7MDENG+b@bucket",
    f"s3://AKIA:{SECRET}",
    f"s3://AKIA:12/{SECRET}@bucket",
    f"s3://{SECRET}@bucket",
    f"S3://AKIA:{SECRET}@bucket",
    f"simplecache::s3://AKIA:{SECRET}@bucket",
    f"s3://bucket/runs?secret_key={SECRET}",
    f"s3://bucket/runs?region=x&session_token={SECRET}",
    f"s3://bucket/runs?region=x;token={SECRET}",
    f"s3://bucket/runs?{SECRET}",
    f"s3://bucket?endpoint_override=http%3A%2F%2Fme%3A{SECRET}%40host",
    f"gs://{SECRET}@bucket",
    f"abfs://runs:{SECRET}@account.dfs.core.windows.net/a",
    f"https://host/runs?X-Amz-Signature={SECRET}",
    f"https://host/runs#access_token={SECRET}",
    f"sftp://me:{SECRET}@host/runs",
)
WITHOUT = (
    *(
        "/runs/a:b@c",
        "s3://bucket/runs",
        "s3://bucket/a@b",
        "s3://bucket?region=eu-west-1&scheme=http",
        "memory://bucket",
    ),
    *("s3://bucket?endpoint_override=localhost:9000", "gs://anonymous@bucket", "sftp://me@host/runs", "file:///r#1"),
    *("hdfs://host:8020/a@b", "http://[::1]:80/runs", "abfs://runs@account.dfs.core.windows.net/a"),
)


@pytest.mark.parametrize("url", WITH_SECRETS)
def test_a_storage_with_a_secret_is_refused_by_every_command_in_a_line_without_it(
    place: Path, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    config = {**to_json(load("cartpole")), "storage": url}
    (place / "a").mkdir()
    (place / "a" / "config.json").write_text(json.dumps(config))
    before = sorted(place.rglob("*"))
    for arguments in (
        ("train", "cartpole", "--storage", url),
        ("train", "cartpole", f"--storage={url}"),
        ("train", "--config", "a/config.json"),
        ("resume", url),
        ("resume", "a", "--storage", url),
        ("resume", "a"),
        ("evaluate", "a"),
        ("bench", "--storage", url),
        ("tune", "cartpole", "--search", "ppo.lr=choice(1e-3)", "--storage", url),
    ):
        assert main(arguments) == 2, arguments
        output, error = capsys.readouterr()
        assert SECRET not in output + error
        assert error.startswith("ctm-rl: ")
        assert error.count("\n") == 1
        assert arguments[0] == "evaluate" or "holds credentials" in error or "may hold a secret" in error
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("url", WITHOUT)
def test_a_storage_without_a_secret_is_taken(url: str) -> None:
    check_storage(url)


def test_python_refuses_a_secret_too_and_says_how_to_give_it(tmp_path: Path) -> None:
    url = f"s3://AKIA:{SECRET}@bucket"
    (tmp_path / "config.json").write_text(json.dumps({**to_json(load("cartpole")), "storage": url}))
    for use in (lambda: Storage(url, "a"), lambda: read_config(tmp_path)):
        with pytest.raises(UserError, match="AWS_ACCESS_KEY_ID") as caught:
            use()
        assert SECRET not in str(caught.value)
        assert "s3://bucket/runs" in str(caught.value)


@pytest.mark.parametrize("url", [url for url in WITH_SECRETS if "@bucket" in url and ":" in url.partition("://")[2]])
def test_a_message_that_repeats_a_url_masks_its_secret(capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert main(["evaluate", "a", url]) == 2
    error = capsys.readouterr().err
    assert SECRET not in error
    assert "unexpected argument" in error
    assert mask_secrets("resume s3://host/a?region=x&token=y, me@host: done") == (
        "resume s3://host/a?region=x&token=*** me@host: done"
    )


def test_the_documents_make_the_token_file_for_its_owner_alone() -> None:
    guide = (ROOT / "docs" / "cluster.md").read_text()
    assert "(umask 077; ray get-auth-token --generate >/dev/null)" in guide
    assert "chmod 600 ~/.ray/auth_token" in (ROOT / "deploy" / "setup-node.sh").read_text()
