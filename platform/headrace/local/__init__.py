"""What a laptop needs: the Ray head, ports, runs and their processes, state under the home folder."""
