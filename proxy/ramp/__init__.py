"""The plan that moves a candidate's weight: phases, policy, and which evidence counts. Pure."""
