"""State and messages that agents share: a blackboard of versioned keys, and publish/subscribe over topics."""
