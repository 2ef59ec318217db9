"""What several providers share, by the shape of their job APIs; imports no provider."""
