import entity.defenses
import entity.server


def test_the_registry_can_be_imported_by_its_earlier_name_too():
    assert entity.server.SERVERS is entity.defenses.DEFENSES  # type: ignore[attr-defined]
    assert entity.defenses.SERVERS is entity.defenses.DEFENSES
