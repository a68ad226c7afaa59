"""An OpenAI-compatible server: one model, one worker thread, documents and sessions."""
