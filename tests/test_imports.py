import subprocess
import sys


def test_the_plugins_do_without_speechbrain():
    """It takes more than a second to import, which an exported model behind SpeechNormalizer should not wait for."""
    code = "import sys, ser_plugins as s; s.SpeechNormalizer(), s.UtteranceEncoder; print('speechbrain' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
