"""The machines a run works on: joined or started, counted, looked at before the first step."""
