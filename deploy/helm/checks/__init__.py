"""What deploy/helm/check does; see there."""
