"""Small World: a seeded, bilingual, measurable world that replaces gigabytes of text in the course."""

from minimind_edu.data.world.world import Document, Person, Question, SmallWorld

__all__ = ["Document", "Person", "Question", "SmallWorld"]
