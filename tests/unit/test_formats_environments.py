"""deploy.yaml to its model, with every problem at its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.cli import main
from agent.formats import environments
from agent.model.environments import Environment, Environments, KeySettings, Target
from agent.model.errors import AgentError, Code
from agent.model.transfer import S3Place

EXAMPLE = Path(__file__).parents[2] / "examples" / "deploy.yaml"
TARGETS = "targets: [{name: eu, url: 's3://acme-eu/deploy'}]"


def parse(text: str) -> tuple[Environments | None, list[str]]:
    built, problems = environments.parse_environments(text.encode(), Path("/ci/deploy.yaml"))
    return built, [str(each).removeprefix("/ci/deploy.yaml:") for each in problems]


def test_everything() -> None:
    built, problems = parse("""
environments:
  test:
    key: keys/test.key
    password_env: TEST_PASSWORD
    public_key: keys/test.pub
    expires: 30d
    targets:
      - {name: test-eu, url: "s3://acme-test-eu/deploy/", region: eu-west-1, profile: test}
  production:
    key_env: PRODUCTION_KEY
    expires: 1h
    requires: [test]
    targets:
      - name: prod-eu
        url: s3://acme-prod-eu
        region: eu-west-1
        endpoint: http://127.0.0.1:8333/
        path_style: true
        role_arn: arn:aws:iam::222222222222:role/ci/deploy
        deployment_groups: [default, canary]
x-note: anything
""")
    assert problems == []
    eu = S3Place("s3://acme-test-eu/deploy", region="eu-west-1", profile="test")
    prod = S3Place(
        "s3://acme-prod-eu",
        region="eu-west-1",
        endpoint="http://127.0.0.1:8333",
        path_style=True,
        role_arn="arn:aws:iam::222222222222:role/ci/deploy",
    )
    keys = KeySettings(
        path=Path("/ci/keys/test.key"),
        password_variable="TEST_PASSWORD",
        public_path=Path("/ci/keys/test.pub"),
    )
    assert built == Environments(
        Path("/ci/deploy.yaml"),
        (
            Environment("test", (Target("test-eu", eu),), keys, 30 * 86400.0),
            Environment(
                "production",
                (Target("prod-eu", prod, ("default", "canary")),),
                KeySettings(variable="PRODUCTION_KEY"),
                3600.0,
                ("test",),
            ),
        ),
    )


def test_the_example_has_no_problem() -> None:
    built, problems = environments.read_environments(EXAMPLE)
    assert built is not None
    assert problems == ()


def of_test(lines: str) -> str:
    return f"environments:\n  test:\n    {TARGETS}\n    {lines}\n"


def of_target(keys: str) -> str:
    return f"environments:\n  test:\n    targets:\n      - {{name: eu, {keys}}}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1:1: error: the file is empty (docs/publishing.md has an example)"),
        ("- a", "1:1: error: must be a mapping"),
        ("environment: {}", "did you mean environments?"),
        ("environments: {}", "1:15: error: environments: must not be empty"),
        ("environments: {test: }", "1:16: error: test: must be a mapping"),
        ("environments: {te st: {}}", "1:16: error: te st: an environment's name must be a word"),
        ("environments: {test: {}}", "1:22: error: test: has no targets"),
        ("environments: {test: {target: []}}", "target: unknown key (did you mean targets?)"),
        ("environments: {test: {targets: []}}", "1:32: error: targets: must not be empty"),
        (of_test("expires: soon"), "4:14: error: expires: must be a duration such as 30d, is"),
        (of_test("requires: [tset]"), "4:16: error: requires, entry 1: there is no environment"),
        (of_test("requires: [test]"), "test cannot require itself"),
        (
            of_test("key: a\n    key_env: B\n    expires: 1d"),
            "5:5: error: key_env: key says already",
        ),
        (of_test("password_env: B"), "4:5: error: password_env: there is no key"),
        (of_test("key_env: 1B"), "key_env: must be the name of an environment variable"),
        (of_target("url: 'https://acme'"), "4:25: error: url: must be s3://BUCKET or s3://"),
        (of_target("url: 's3://acme/../other'"), "must not contain . or .. as a folder"),
        (of_target("url: 's3://acme', endpoint: 'http://me:secret@host'"), "endpoint: must be"),
        (of_target("url: 's3://acme', path_style: maybe"), "path_style: must be true or false"),
        (of_target("url: 's3://acme', role_arn: deploy"), "role_arn: must be a role such as"),
        (of_target("url: 's3://acme', secret_key: x"), "secret_key: unknown key"),
        (of_target("url: 's3://acme', deployment_groups: []"), "deployment_groups: must not be"),
        (of_target("url: 's3://acme', deployment_groups: [a, a]"), "a is there twice"),
        (of_target("url: 's3://acme', deployment_groups: [bundles]"), "the name of a folder"),
    ],
)
def test_what_is_wrong_is_told_at_its_place(text: str, said: str) -> None:
    built, problems = parse(text)
    assert built is None
    assert said in "\n".join(problems)


def test_all_problems_at_once() -> None:
    _, problems = parse(of_test("expires: soon\n    requires: [x]\n    key_env: 1\n    kye: 2"))
    assert [each.split(":")[0] for each in problems] == ["4", "5", "6", "7"]


def test_a_secret_in_the_file_is_refused_and_not_repeated() -> None:
    secret = "RWRTY0IyZmFrZWtleQ=="
    built, problems = parse(of_test(f"expires: 1d\n    key: {secret}"))
    assert built is None
    assert "is a secret key itself; key names where it is" in problems[0]
    assert secret not in "".join(problems)


def test_two_entries_never_write_the_same_pointer() -> None:
    text = """
environments:
  test:
    targets:
      - {name: a, url: "s3://acme/x"}
      - {name: a, url: "s3://acme/y"}
      - {name: c, url: "s3://acme/y", deployment_groups: [canary]}
  production:
    targets: [{name: p, url: "s3://acme/x/"}]
"""
    _, problems = parse(text)
    assert problems == [
        "6:16: error: name: two targets of test are called a (give each a name of its own)",
        (
            "9:30: error: url: test/a publishes to the same place, group default"
            " (give each a prefix of its own: s3://bucket/test)"
        ),
    ]


def test_hosts_would_refuse_what_is_signed_for_ever() -> None:
    built, problems = parse(of_test("key_env: TEST_KEY"))
    assert built is None
    assert problems == [
        (
            "3:5: error: expires: is missing beside the key: hosts refuse a signed manifest that is"
            " good for ever (write expires: 30d)"
        )
    ]


def test_choosing_one() -> None:
    built = environments.load_environments(EXAMPLE)
    assert environments.choose(built, "production").requires == ("test",)
    with pytest.raises(AgentError, match="did you mean production") as caught:
        environments.choose(built, "prodction")
    assert caught.value.code is Code.BAD_REQUEST
    assert caught.value.remedy == "Name one of: test, production"


def test_which_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AgentError, match=r"there is no deploy\.yaml in this folder"):
        environments.load_environments(None)
    with pytest.raises(AgentError, match="cannot read other: No such file"):
        environments.load_environments(Path("other"))
    (tmp_path / "deploy.yml").write_text(of_test("expires: soon\n    x: 1"))
    with pytest.raises(AgentError, match=r"cannot use deploy\.yml: it has 2 errors") as caught:
        environments.load_environments(None)
    assert caught.value.remedy.endswith("agentctl lint deploy.yml")


def test_lint_knows_the_file_by_name_and_by_content(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("deploy.yaml", "ci.yml"):
        (tmp_path / name).write_text(of_test("expires: soon"))
        assert main.main(["lint", str(tmp_path / name)]) == 1
        assert "expires: must be a duration such as 30d, is 'soon'" in capsys.readouterr().out
