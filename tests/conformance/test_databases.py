from __future__ import annotations

import pytest

pytest.register_assert_rewrite("batchway.testing.db_suite")

from batchway.testing.db_suite import DatabaseSuite  # noqa: E402 - or its assertions would say nothing


class TestSqlite(DatabaseSuite):
    @pytest.fixture
    def database_url(self, tmp_path):
        return f"sqlite:///{tmp_path}/db"


@pytest.mark.postgres
class TestPostgres(DatabaseSuite):
    @pytest.fixture
    def database_url(self, postgres):
        return postgres.fresh()
