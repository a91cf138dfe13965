"""Many runs of one experiment that differ in the fields searched, scheduled by Ray Tune."""
