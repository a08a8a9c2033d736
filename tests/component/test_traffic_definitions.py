"""What service definitions of many shapes define: the agent's reading of them beside Consul's."""

from __future__ import annotations

from pathlib import Path

from agent.traffic import definitions
from tests import consul_server

FILES = {
    "block.hcl": """
        service {
          id = "block-1"  # not its name
          name = "block"
          check { id = "inner", name = "inner", http = "http://127.0.0.1:1", interval = "10s" }
          meta { id = "meta" }
        }""",
    "two.hcl": 'services { name = "two-a" }\nservices { name = "two-b" id = "two-2" port = 0x50 }',
    "list.hcl": 'services = [{ name = "list-a" }, { Name = "list-b", ID = "list-2" },]',
    "quoted.hcl": '"service" = { "name" = "quoted \\"\\u00e9//\\"" }',
    "heredoc.hcl": 'service {\n name = "heredoc"\n meta {\n  a = <<EOF\nservice { name = "no" }\n'
    " EOF\n }\n}\n",
    "repeated.hcl": 'service {\n name = "first"\n name = "second"\n}\n',
    "capital.hcl": 'Service { name = "capital" }',
    "plain.json": '{"service": {"name": "plain", "port": 1}}',
    "capital.json": '{"Services": [{"ID": "capital-2", "Name": "capital"}]}',
}


def test_the_same_services_as_consul_knows(state_dir: Path) -> None:
    server = consul_server.server(state_dir / "server")
    for name, text in FILES.items():
        (server.services_dir / name).write_text(text)
    with consul_server.running(server):
        known = server.ask("GET", "/v1/agent/services")
    paths = [str(server.services_dir / name) for name in FILES]
    assert sorted(definitions.read_ids(paths)) == sorted(known)
    assert definitions.find_unread(paths) == ()
