"""Ray Serve and what answers in it: the contract (no ray), the front, the V2 protocol, the client of Serve's API."""
